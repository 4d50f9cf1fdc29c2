"""The site: every example on it is run when it is built, and one that fails, fails the build. `make docs` builds it."""

import hashlib
import os
import sys
from pathlib import Path

import thalweg

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE / "_ext"))

project = "thalweg"
author = "The thalweg authors"
copyright = "The thalweg authors, Apache 2.0"
version = release = thalweg.__version__

extensions = ["myst_nb", "mathml", "api", "gallery", "referee", "benchmarks", "commands", "notebooks", "streams"]
exclude_patterns = ["_ext"]
toc_object_entries_show_parents = "hide"
python_display_short_literal_types = True
# What `make report` measured, where it has.
thalweg_report = os.environ.get("THALWEG_REPORT", str(ROOT / "report"))

# --- text
myst_enable_extensions = ["dollarmath", "deflist", "colon_fence", "attrs_inline"]
myst_heading_anchors = 3
myst_dmath_double_inline = True
pygments_style = "friendly"
pygments_dark_style = "github-dark"

# --- examples
# What a page's examples gave is kept for the next build, by the sources it was made with: a change of the library
# runs them all again.
_sources = hashlib.sha256()
for _file in sorted((ROOT / "src").rglob("*.py")):
    _sources.update(_file.read_bytes())
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "build" / "examples" / _sources.hexdigest()[:16])
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_in_temp = True
nb_execution_timeout = 300
nb_merge_streams = True
# The kernel sees nobody's own settings, and the command of the environment that builds the site.
_profile = ROOT / "build" / "ipython" / "profile_default"
_profile.mkdir(parents=True, exist_ok=True)
(_profile / "ipython_kernel_config.py").write_text(
    "c = get_config()\nc.IPKernelApp.log_level = 40\nc.InlineBackend.figure_formats = {'retina'}\n"
)
os.environ["IPYTHONDIR"] = str(_profile.parent)
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# --- looks: nothing is fetched from a network
html_theme = "furo"
html_title = "thalweg"
html_static_path = ["_static"]
html_css_files = ["thalweg.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b5c8a", "color-brand-content": "#0b5c8a"},
    "dark_css_variables": {"color-brand-primary": "#7cc4ee", "color-brand-content": "#7cc4ee"},
    "footer_icons": [],
}
