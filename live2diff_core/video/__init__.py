"""Video files in and out. Knows neither torch nor anything else of this pack."""
