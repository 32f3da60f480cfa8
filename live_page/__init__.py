"""The live page: its files, and the routes that connect it and players with live streams."""
