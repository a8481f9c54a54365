"""The operating system's side of the server: a supervisor, its workers, the control plane, and what they tell each other.

supervisor   owns PostgreSQL, the local models, the sockets and the manifest; serves no request
worker ×N    the data plane: everything that a request needs, in one event loop
control      admin API, console, metrics, and the sweeper of what dead workers held
forking      what those are forked from: loaded libraries, and nothing else
"""
