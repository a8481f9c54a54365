"""Signed tokens: who an issuer says the sender is, checked here and nowhere else.

A token's way: ``reading`` (bytes → header and claims) → ``checks`` (may it be trusted, and whom does it name) with the keys
that ``source`` keeps from ``fetching`` and ``keys``. ``verifier`` runs the way for requests, ``inspection`` runs the same
checks one by one for ``shipworthy token explain``; ``development`` is the issuer of ``shipworthy token mint``.
"""
