"""The page for the browser: `actions` is what it does, `layout` its looks."""
