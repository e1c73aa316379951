"The reference: one page a module, made from docstrings and docments, patched methods under their class"
import importlib
import re

from fastcore.docments import docments

from places import root

public = {}        # {name: its full name}, of everything that the package exports


def load(app):
    "Import every module, so that each class has the methods that a later module gives it"
    for module in modules():
        full = f'collab_course.{module}'
        made = importlib.import_module(full)
        names = [name for name in made.__all__ if home(vars(made)[name], full) == full]
        public.update({name: f'{full}.{name}' for name in names})


def home(obj, module: str) -> str:
    "The module in which something was made; `module` if it doesn't know"
    return getattr(obj, '__module__', None) or module


def skip(app, what, name, obj, skipped, options):
    "Sphinx's hook: leave out what another page describes, and what has neither docstring nor comments"
    if what == 'module':
        page = app.env.docname.replace('reference/', 'collab_course.')
        return skipped or not obj.__doc__ or home(obj, page) != page
    return skipped or not (obj.__doc__ or callable(obj) and commented(obj))


def docstring(app, what, name, obj, options, lines):
    "Sphinx's hook: Markdown becomes reStructuredText, and docments become a list of parameters"
    made = as_rst('\n'.join(lines)).splitlines()
    if what == 'module': made += ['', f'This module comes from the notebook {notebook_link(name)}.']
    if what == 'class': made += ['', *extended(obj)]
    if what in ('function', 'method', 'class'): made += ['', *parameters(obj)]
    lines[:] = made


def notebook_link(module: str) -> str:
    "The notebook that exports a module, as its head says"
    head = (root/(module.replace('.', '/') + '.py')).read_text(encoding='utf-8')
    name = re.search(r'File to edit: \.\./nbs/(\S+)\.ipynb', head)[1]
    return f':doc:`/{name}`'


def extended(cls: type) -> list:
    "A line that names what a class extends"
    bases = [code(base.__name__) for base in cls.__bases__ if base is not object]
    return [f'Extends {", ".join(bases)}.'] if bases else []


def parameters(obj) -> list:
    "Lines `:param name: comment` and `:returns: comment` of what has a comment"
    res = []
    for name, said in commented(obj).items():
        field = 'returns' if name == 'return' else f'param {name}'
        res.append(f':{field}: {as_rst(said)}')
    return res


def commented(obj) -> dict:
    "{parameter: its comment}, of those that have one"
    if isinstance(obj, type) and '__init__' not in vars(obj): return {}
    try: found = docments(obj, full=True)
    except (TypeError, OSError, ValueError): return {}
    return {name: ' '.join(o.docment.split()) for name, o in found.items() if o.docment}


def as_rst(text: str) -> str:
    "Markdown as reStructuredText: `code` becomes code or a link, and other special characters are escaped"
    parts = re.split(r'(`[^`]+`)', text)
    return ''.join(code(o[1:-1]) if o.startswith('`') and len(o) > 2 else escaped(o) for o in parts)


def code(name: str) -> str:
    "A public name as a link. Plain words like `score` are left alone, because columns are called so, too."
    full = public.get(name.removesuffix('()')) if re.search('[A-Z_(]', name) else None
    return f':py:obj:`{name} <{full}>`' if full else f'``{name}``'


def escaped(text: str) -> str: return re.sub(r'([\\*_|])', r'\\\1', text)


def modules() -> list:
    return sorted(p.stem for p in (root/'collab_course').glob('[!_]*.py'))
