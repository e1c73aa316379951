__version__ = "0.1.0"

import os

# PyTorch's threads wait without spinning, unless you have chosen otherwise. It works if this package is imported
# before PyTorch. Why: the end of the notebook on training, nbs/package/08_training.ipynb.
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
