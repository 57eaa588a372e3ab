"""How stages are declared, wired, checked, looked up, linted and drawn."""
