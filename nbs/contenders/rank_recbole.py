"RecBole's LightGCN."
import tempfile
from pathlib import Path

import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.interaction import Interaction
from recbole.model.general_recommender import LightGCN
from recbole.trainer import Trainer
from recbole.utils import init_seed


def load(train, seed, **settings):
    folder = Path(tempfile.mkdtemp())/'ratings'
    folder.mkdir()
    pairs = train[['user', 'item']].set_axis(['user_id:token', 'item_id:token'], axis=1)
    pairs.to_csv(folder/'ratings.inter', sep='\t', index=False)
    settings |= dict(data_path=str(folder.parent), load_col={'inter': ['user_id', 'item_id']}, use_gpu=False)
    settings['eval_args'] = {'split': {'RS': [1., 0., 0.]}, 'group_by': None, 'order': 'RO', 'mode': 'full'}
    settings['seed'] = seed
    config = Config(model='LightGCN', dataset='ratings', config_dict=settings)
    init_seed(seed, config['reproducibility'])
    dataset = create_dataset(config)
    train_data, _, _ = data_preparation(config, dataset)
    return config, dataset, train_data


def fit(data):
    config, _, train_data = data
    model = LightGCN(config, train_data.dataset).to(config['device'])
    Trainer(config, model).fit(train_data, saved=False, show_progress=False)
    return model


def predict(model, data, users_list, items_list):
    _, dataset, _ = data
    rows = torch.tensor(dataset.token2id('user_id', [str(user) for user in users_list]))
    columns = dataset.token2id('item_id', [str(item) for item in items_list])
    with torch.no_grad():
        scores = model.full_sort_predict(Interaction({'user_id': rows}))
    return scores.view(len(users_list), -1)[:, columns].numpy()
