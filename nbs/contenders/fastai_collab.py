"fastai as its documentation has it; `tabular` takes the loader that cuts whole batches out of the table."
from fastai.collab import TabularCollab, collab_learner
from fastai.tabular.all import Categorify, TabDataLoader, TransformBlock, pd, set_seed


def load(train, valid, seed, tabular=False):
    set_seed(seed)
    ratings = pd.concat([train, valid], ignore_index=True).astype({'user': object, 'item': object})
    splits = list(range(len(train))), list(range(len(train), len(ratings)))
    table = TabularCollab(ratings, [Categorify], ['user', 'item'], None, ['rating'], TransformBlock(), splits)
    return table.dataloaders(bs=64, dl_type=TabDataLoader if tabular else None)


def fit(data, epochs=5, y_range=(0, 5.5)):
    learn = collab_learner(data, n_factors=50, y_range=y_range)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(epochs, 5e-3, wd=0.1)
    return learn


def predict(model):
    with model.no_bar():
        return model.get_preds()[0].flatten()
