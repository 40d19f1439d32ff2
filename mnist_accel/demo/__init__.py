"""The page on which people draw digits in a browser, and its server."""
