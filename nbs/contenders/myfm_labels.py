"myFM with what MovieLens says of users and films; `ordered` takes ratings as ordered classes."
import myfm
import numpy as np
import scipy.sparse as sps
from sklearn.preprocessing import OneHotEncoder


def load(train, valid, users, items):
    user_info = users.assign(age=users.age // 5 * 5)[['user', 'age', 'gender', 'occupation']]
    movie_info = items.assign(year=items.year.fillna(0))[['item', 'year']]
    movie_genres = items.set_index('item').genres.str.get_dummies('|')
    encoders = [OneHotEncoder(handle_unknown='ignore').fit(info) for info in (user_info, movie_info)]
    tables = user_info, movie_info, movie_genres, encoders
    group_shapes = [len(group) for ohe in encoders for group in ohe.categories_] + [movie_genres.shape[1]]
    return blocks(train, *tables), blocks(valid, *tables), group_shapes


def blocks(df, user_info, movie_info, movie_genres, encoders):
    user_ids, user_rows = np.unique(df.user, return_inverse=True)
    movie_ids, movie_rows = np.unique(df.item, return_inverse=True)
    X_user = encoders[0].transform(user_info.set_index('user', drop=False).reindex(user_ids))
    X_movie = encoders[1].transform(movie_info.set_index('item', drop=False).reindex(movie_ids))
    X_movie = sps.hstack([X_movie, movie_genres.reindex(movie_ids).values], format='csr')
    return [myfm.RelationBlock(user_rows, X_user.tocsr()), myfm.RelationBlock(movie_rows, X_movie)]


def fit(data, seed, train, rank, n_iter, ordered=False):
    train_blocks, _, groups = data
    model = (myfm.MyFMOrderedProbit if ordered else myfm.MyFMRegressor)(rank=rank, random_seed=seed)
    y = train.rating.to_numpy().astype(int) - 1 if ordered else train.rating.to_numpy()
    model.fit(None, y, X_rel=train_blocks, n_iter=n_iter, n_kept_samples=n_iter, group_shapes=groups)
    return model


def predict(model, data, ordered=False):
    _, X, _ = data
    predict = model.predict_proba if ordered else model.predict
    return predict(None, X_rel=X) @ np.arange(1, 6) if ordered else predict(None, X_rel=X)
