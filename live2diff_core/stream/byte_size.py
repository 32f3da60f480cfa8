"""Sizes in bytes, formatted for people."""


def format_bytes(count: int) -> str:
    """Format a size for people: '1.52 GB'."""
    if count >= 1e9:
        return f"{count / 1e9:.2f} GB"
    return f"{count / 1e6:.1f} MB"
