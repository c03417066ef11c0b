"""Search spaces shipped with the package, as TOML files."""
