"myFM, a factorization machine that samples, on users and items."
import myfm
from sklearn.preprocessing import OneHotEncoder


def load(train, valid):
    ohe = OneHotEncoder(handle_unknown='ignore')
    X_train, X_valid = ohe.fit_transform(train[['user', 'item']]), ohe.transform(valid[['user', 'item']])
    groups = [len(group) for group in ohe.categories_]
    return X_train, X_valid, groups


def fit(data, seed, train, rank, n_iter):
    X_train, _, groups = data
    model = myfm.MyFMRegressor(rank=rank, random_seed=seed)
    model.fit(X_train, train.rating.to_numpy(), n_iter=n_iter, n_kept_samples=n_iter, group_shapes=groups)
    return model


def predict(model, data):
    _, X_valid, _ = data
    return model.predict(X_valid)
