"""The data sets known by name: what they are, their files, where to fetch them and how to know them.

SHA-256 and MD5 are those the publishers and the TensorFlow Datasets checksums list; sizes in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    """A file to fetch.

    Attributes:
        name: of the file. urls: where it can be had, in the order they are tried.
        sha256, md5: what its contents are known by, lower-case hexadecimal; "" unknown.
        size: bytes; 0 unknown.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str = ""
    md5: str = ""
    size: int = 0


@dataclass(frozen=True)
class Source:
    """A data set.

    Attributes:
        name: what ``load`` calls it. title: what it is, in a few words.
        samples: how many for training, and for testing (0: none are set apart).
        shape: of a sample. classes: their names.
        downloads: its files; () for what scikit-learn holds or makes.
        forms: the sets of files it can be read from; a file is given by the names it may have.
        layouts: where these may lie within a folder of the user's.
        alternative: what to take instead, offline.
    """

    name: str
    title: str
    samples: tuple[int, int]
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    downloads: tuple[File, ...] = ()
    forms: tuple[tuple[tuple[str, ...], ...], ...] = ()
    layouts: tuple[str, ...] = ("",)
    alternative: str = ""


Hashes = tuple[tuple[str, str, int], ...]

IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
# unpacked, as published, and with the dot that some copies have in place of the dash
IDX_FORM = tuple((name, f"{name}.gz", name.replace("-idx", ".idx")) for name in IDX)
DIGITS = tuple("0123456789")
CLOTHES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BEATS = ("normal", "R-on-T premature ventricular", "premature ventricular", "supraventricular", "unclassified")
INSTEAD = "gj.data.load('digits'): 1797 images of 8 x 8 pixels that come with scikit-learn"


def _idx(bases: tuple[str, ...], hashes: Hashes) -> tuple[File, ...]:
    return tuple(File(f"{name}.gz", tuple(f"{base}{name}.gz" for base in bases), *known)
                 for name, known in zip(IDX, hashes, strict=True))


MNIST = _idx(
    ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"), (
        ("440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", "f68b3c2dcbeaaa9fbdd348bbdeb94873",
         9912422),
        ("3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", "d53e105ee54ea40749a09fcbcd1e9432",
         28881),
        ("8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", "9fb629c4189551a2d022fa330f9573f3",
         1648877),
        ("f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", "ec29112dd5afa0611ce80d1b7f02629c",
         4542)))

FASHION = _idx(
    ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
     "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"), (
        ("3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
         26421880),
        ("a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", "25c81989df183df01b3e8a0aad5dffbe",
         29515),
        ("346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", "bef4ecab320f06d8554ea6380940ec79",
         4422102),
        ("67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", "bb300cfdad3c16e7a12a480ee83cd310",
         5148)))

CIFAR10 = (File(
    "cifar-10-binary.tar.gz",
    ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
     "https://cave.cs.toronto.edu/kriz/cifar-10-binary.tar.gz"),
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd", "c32a1d4ab5d03f1284b67883e8d87530",
    170052171),)
CIFAR10_FORM = (*((f"data_batch_{i}.bin",) for i in range(1, 6)), ("test_batch.bin",))

ECG5000 = (File("ECG5000.zip", ("https://timeseriesclassification.com/aeon-toolkit/ECG5000.zip",
                                "https://www.timeseriesclassification.com/Downloads/ECG5000.zip")),)
ECG5000_FORM = tuple(tuple(f"ECG5000_{part}.{kind}" for kind in ("txt", "tsv", "ts")) for part in ("TRAIN", "TEST"))
ECG_CSV = (File("ecg.csv", ("https://storage.googleapis.com/download.tensorflow.org/data/ecg.csv",)),)

_ALL = (
    Source("digits", "handwritten digits of 8 x 8 pixels, 0..16", (1797, 0), (1, 8, 8), DIGITS),
    Source("iris", "flowers of three species, by four lengths", (150, 0), (4,), ("setosa", "versicolor", "virginica")),
    Source("wine", "wines of three growers, by 13 measurements", (178, 0), (13,), ("class_0", "class_1", "class_2")),
    Source("breast_cancer", "tumours, by 30 measurements", (569, 0), (30,), ("malignant", "benign")),
    Source("moons", "two interleaving half circles in the plane, made", (1000, 0), (2,), ("0", "1")),
    Source("circles", "two circles, one within the other, made", (1000, 0), (2,), ("0", "1")),
    Source("blobs", "three clouds of points in the plane, made", (1000, 0), (2,), ("0", "1", "2")),
    Source("mnist", "handwritten digits of 28 x 28 pixels", (60000, 10000), (1, 28, 28), DIGITS, MNIST, (IDX_FORM,),
           ("MNIST/raw", "mnist", "MNIST", "raw", ""), INSTEAD),
    Source("fashion-mnist", "clothes of 28 x 28 pixels", (60000, 10000), (1, 28, 28), CLOTHES, FASHION, (IDX_FORM,),
           ("FashionMNIST/raw", "fashion-mnist", "fashion", "FashionMNIST", "raw", ""), INSTEAD),
    Source("cifar10", "colour photographs of 32 x 32 pixels", (50000, 10000), (3, 32, 32), THINGS, CIFAR10,
           (CIFAR10_FORM, (("cifar-10-binary.tar.gz",),)),
           ("cifar-10-batches-bin", "cifar10/cifar-10-batches-bin", "cifar10", ""), INSTEAD),
    Source("ecg5000", "heart beats of 140 samples", (500, 4500), (1, 140), BEATS, ECG5000,
           (ECG5000_FORM, (("ECG5000.zip",),)), ("ECG5000", "ecg5000", ""),
           "gj.data.load('breast_cancer'): 30 measurements a sample, that come with scikit-learn"),
    Source("ecg5000-binary", "heart beats of 140 samples, normal or not: a copy of ECG5000 in CSV", (4998, 0),
           (1, 140), ("abnormal", "normal"), ECG_CSV, ((("ecg.csv",),),), ("ECG5000", "ecg5000", ""),
           "gj.data.load('breast_cancer'): 30 measurements a sample, that come with scikit-learn"),
)

SOURCES: dict[str, Source] = {source.name: source for source in _ALL}
