"""An embedded, versioned, content-addressed object store for the workspaces of AI agents."""

__version__ = "0.1.0.dev0"
