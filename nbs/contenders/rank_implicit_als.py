"implicit's alternating least squares; `weighted` first weighs the pairs by BM25."
import numpy as np
from implicit.als import AlternatingLeastSquares
from implicit.nearest_neighbours import bm25_weight
from scipy.sparse import csr_matrix


def load(train, users_list, items_list, weighted=False):
    pairs = np.searchsorted(users_list, train.user), np.searchsorted(items_list, train.item)
    user_items = csr_matrix((np.ones(len(train)), pairs), shape=(len(users_list), len(items_list)))
    return bm25_weight(user_items.T, K1=100, B=0.8).T.tocsr() if weighted else user_items


def fit(data, seed, **settings):
    model = AlternatingLeastSquares(random_state=seed, **settings)
    model.fit(data, show_progress=False)
    return model


def predict(model):
    return model.user_factors @ model.item_factors.T
