"""The signer: a process of its own that alone has an instance's private key, behind a Unix socket."""
