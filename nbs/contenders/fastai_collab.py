"fastai as its documentation has it; `tabular` takes the loader that cuts whole batches out of the table."
from fastai.collab import TabularCollab, collab_learner
from fastai.tabular.all import Categorify, TabDataLoader, TransformBlock, set_seed


def load(train, seed, tabular=False, bs=64):
    set_seed(seed)
    ratings = train.astype({'user': object, 'item': object})
    splits = list(range(len(train))), []
    table = TabularCollab(ratings, [Categorify], ['user', 'item'], None, ['rating'], TransformBlock(), splits)
    return table.dataloaders(bs=bs, dl_type=TabDataLoader if tabular else None)


def fit(data, epochs=5, y_range=(0, 5.5), lr=5e-3, wd=0.1):
    learn = collab_learner(data, n_factors=50, y_range=y_range)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(epochs, lr, wd=wd)
    return learn


def predict(model, valid):
    pairs = valid[['user', 'item']].astype(object)
    with model.no_bar():
        return model.get_preds(dl=model.dls.test_dl(pairs))[0].flatten()
