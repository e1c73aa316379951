"myFM with ids, MovieLens' labels, and and who rated what both ways, each row of unit length."
import myfm
import numpy as np
import scipy.sparse as sps
from sklearn.preprocessing import OneHotEncoder, normalize


def load(train, valid, users, items):
    user_info = users.assign(age=users.age // 5 * 5)[['user', 'age', 'gender', 'occupation']]
    movie_info = items.assign(year=items.year.fillna(0))[['item', 'year']]
    genres = items.set_index('item').genres.str.get_dummies('|')
    shape = users.user.max() + 1, items['item'].max() + 1
    rated = sps.csr_matrix((np.ones(len(train)), (train.user, train['item'])), shape)
    sides = [('user', user_info, None, rated), ('item', movie_info, genres, rated.T.tocsr())]
    made = [side(train, valid, *given) for given in sides]
    groups = [n for _, shapes in made for n in shapes]
    return *zip(*(blocks for blocks, _ in made)), groups


def side(train, valid, name, info, more, rated):
    "The blocks of one side for training and for prediction, and the sizes of their groups of columns"
    ohe = OneHotEncoder(handle_unknown='ignore').fit(info)

    def block(table):
        ids, rows = np.unique(table[name], return_inverse=True)
        parts = [ohe.transform(info.set_index(name, drop=False).reindex(ids)), normalize(rated[ids])]
        if more is not None:
            parts.append(more.reindex(ids).values)
        return myfm.RelationBlock(rows, sps.hstack(parts, format='csr'))
    shapes = [len(group) for group in ohe.categories_] + [rated.shape[1]]
    return [block(train), block(valid)], shapes + ([] if more is None else [more.shape[1]])


def fit(data, seed, train, rank, n_iter):
    train_blocks, _, groups = data
    model = myfm.MyFMRegressor(rank=rank, random_seed=seed)
    model.fit(None, train.rating.to_numpy(), X_rel=list(train_blocks), n_iter=n_iter, n_kept_samples=n_iter,
              group_shapes=groups)
    return model


def predict(model, data):
    _, valid_blocks, _ = data
    return model.predict(None, X_rel=list(valid_blocks))
