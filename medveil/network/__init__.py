"""Between organisations: who a peer is (`certificates`), and the listener that says so to the app (`protocol`).

Nothing is imported here, so that no command loads a web server before it needs one.
"""
