"""Makes cifar.pickle files as CIFAR-10 has them, for cifar_test.cpp. Needs numpy; run by hand."""
import pickle, sys
import numpy as np

data = np.arange(2 * 3072, dtype=np.int64).astype(np.uint8).reshape(2, 3072)
for protocol in (2, 3, 5):
    key = (lambda text: text.encode()) if protocol == 2 else (lambda text: text)
    batch = {key("batch_label"): b"testing", key("labels"): [3, 9], key("data"): data,
             key("filenames"): [b"a.png", b"b.png"]}
    pickle.dump(batch, open(f"{sys.argv[1]}/cifar{protocol}.pickle", "wb"), protocol=protocol)

samples = [{"input_ids_0": np.array([5, 0, 7, 0], np.int32), "input_ids_1": np.array([1, 2, 0, 0], np.int32),
            "label": np.int64(1)},
           {"input_ids_0": np.array([0, 0, 0, 9], np.int32), "input_ids_1": np.array([3, 3, 3, 3], np.int32),
            "label": 0}]
pickle.dump(samples, open(f"{sys.argv[1]}/retrieval.pickle", "wb"), protocol=4)
