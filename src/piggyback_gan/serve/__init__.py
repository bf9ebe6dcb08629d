"""An HTTP server for the tasks of a bank, with a web page."""
