"implicit's Bayesian personalized ranking."
import numpy as np
from implicit.bpr import BayesianPersonalizedRanking
from scipy.sparse import csr_matrix


def load(train, users_list, items_list):
    pairs = np.searchsorted(users_list, train.user), np.searchsorted(items_list, train.item)
    return csr_matrix((np.ones(len(train)), pairs), shape=(len(users_list), len(items_list)))


def fit(data, seed):
    model = BayesianPersonalizedRanking(random_state=seed)
    model.fit(data, show_progress=False)
    return model


def predict(model):
    return model.user_factors @ model.item_factors.T
