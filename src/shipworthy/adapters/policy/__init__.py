"""Rules' conditions in CEL: the only place that knows the language's library."""
