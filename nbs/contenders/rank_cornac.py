"""Cornac's rankers: `kind` is the name of the class; `seeded` is false for those that take no seed; `ones`
puts a one in the place of every rating."""
import cornac
import numpy as np


def load(train, seed, ones=False):
    train = train.assign(rating=1.) if ones else train
    return cornac.data.Dataset.from_uir(list(train.itertuples(index=False, name=None)), seed=seed)


def fit(data, seed, kind, seeded=True, **settings):
    seeds = {'seed': seed} if seeded else {}
    return getattr(cornac.models, kind)(**settings, **seeds).fit(data)


def predict(model, data, users_list, items_list):
    columns = [data.iid_map[item] for item in items_list]
    return np.stack([np.ravel(model.score(data.uid_map[user]))[columns] for user in users_list])
