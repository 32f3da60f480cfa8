"""Reads who imports what from the source, so that nothing has to be installed."""

import ast


def imports(path):
    """Modules a file imports anywhere: absolute names, and relative ones with their dots.

    Also those that it looks for with `find_spec("name")`, to import them in its own way.
    """
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {"." * node.level + name for name in names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("find_spec"):
            found |= {each.value for each in node.args if isinstance(each, ast.Constant)}
    return found


def top(name):
    return name.split(".")[0]
