"""Development tools: environment, host, stand-in models, demo. Not part of the node pack."""
