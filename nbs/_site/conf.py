"How Sphinx builds the site, see .ci/site. Nothing that a page shows comes from the network."
import sys
from pathlib import Path

here = Path(__file__).resolve().parent
sys.path[:0] = [str(here), str(here.parent.parent)]

import mathml  # noqa: E402
import notebooks  # noqa: E402
import reference  # noqa: E402
from places import branch, cfg, repository  # noqa: E402

project = cfg['title']
author = cfg['author']
copyright = cfg['copyright']
release = cfg['version']
language = 'en'

extensions = ['myst_nb', 'sphinx.ext.autodoc']
suppress_warnings = ['myst.header']          # a section may begin with a small heading
exclude_patterns = ['contenders']
html_math_renderer = 'mathml'

# pages are made of the outputs that are committed
nb_execution_mode = 'off'
nb_merge_streams = True
nb_render_markdown_format = 'myst'
nb_ipywidgets_js = {}
myst_enable_extensions = ['dollarmath', 'amsmath', 'colon_fence', 'html_image', 'attrs_inline']
myst_heading_anchors = 4
myst_links_external_new_tab = False

autodoc_member_order = 'bysource'
autodoc_preserve_defaults = True
autodoc_typehints_format = 'short'
maximum_signature_line_length = 80
add_module_names = False
toc_object_entries_show_parents = 'hide'

html_theme = 'sphinx_book_theme'
html_title = project
html_static_path = ['static']
html_css_files = ['course.css']
html_copy_source = True
html_sourcelink_suffix = ''
html_show_sphinx = False
html_baseurl = f"{cfg['doc_host']}{cfg['doc_baseurl']}/"
html_theme_options = dict(
    repository_url=repository, repository_branch=branch, path_to_docs='nbs',
    use_repository_button=True, use_download_button=True, use_fullscreen_button=False,
    show_toc_level=2, show_navbar_depth=1, navigation_depth=2, collapse_navigation=True,
    home_page_in_toc=False, navigation_with_keys=False, navbar_persistent=[],
)


def setup(app):
    app.add_html_math_renderer('mathml', (mathml.visit_inline, None), (mathml.visit_block, None))
    app.connect('builder-inited', reference.load)
    app.connect('source-read', notebooks.read)
    app.connect('autodoc-skip-member', reference.skip)
    app.connect('autodoc-process-docstring', reference.docstring)
    return dict(parallel_read_safe=True, parallel_write_safe=True)
