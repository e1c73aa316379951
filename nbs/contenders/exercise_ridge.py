"The exercise's own contender: a number for each user and item by scikit-learn's ridge regression."
from sklearn.linear_model import Ridge
from sklearn.preprocessing import OneHotEncoder


def load(train, valid):
    ohe = OneHotEncoder(handle_unknown='ignore')
    return ohe.fit_transform(train[['user', 'item']]), ohe.transform(valid[['user', 'item']])


def fit(data, train, alpha=5.):
    X_train, _ = data
    return Ridge(alpha=alpha).fit(X_train, train.rating)


def predict(model, data):
    _, X_valid = data
    return model.predict(X_valid)
