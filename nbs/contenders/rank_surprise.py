"Surprise's SVD asked for lists: whom it would rate highest."
import pandas as pd
from surprise import SVD, Dataset, Reader


def load(train):
    data = Dataset.load_from_df(train[['user', 'item', 'rating']], Reader(rating_scale=(1, 5)))
    return data.build_full_trainset()


def fit(data, seed, **settings):
    return SVD(random_state=seed, **settings).fit(data)


def predict(model, data, users_list, items_list):
    predictions = pd.DataFrame(model.test(data.build_anti_testset()))
    scores = predictions.pivot(index='uid', columns='iid', values='est')
    return scores.reindex(index=users_list, columns=items_list).fillna(0)
