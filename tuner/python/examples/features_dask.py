"""Features of a folder of images into Parquet, on a Dask cluster.

    pip install "dask[dataframe,distributed]" inception-tuner
    python features_dask.py photographs/ features/ --weights w.safetensors --workers 2

Each worker process has one session; a task is some images. Spark runs the same class in `mapInPandas`:

    def features(tables):
        batches = FeatureBatches("/shared/w.safetensors", column="content", threads=1)
        for table in tables:
            columns = batches(table.to_dict("list"))
            yield pandas.DataFrame({**columns, "features": list(columns["features"])})

    images = spark.read.format("binaryFile").option("recursiveFileLookup", True).load(folder)
    images.select("path", "content").mapInPandas(features, "path string, features array<float>, error string")
"""

import argparse

import dask
import pyarrow.parquet
from dask.distributed import Client, LocalCluster

from inception_tuner import list_images
from inception_tuner.batches import FeatureBatches


def write(batches, paths, file):
    """One file of the results."""
    table = batches.table({"path": paths, "image": paths})
    pyarrow.parquet.write_table(table, file)
    return table.num_rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", help="a folder that every machine has")
    parser.add_argument("out", help="the folder of Parquet files, which is there")
    parser.add_argument("--weights", help="a path that every machine has; synthetic weights without it")
    parser.add_argument("--scheduler", help="the address of a cluster; one of this machine without it")
    parser.add_argument("--workers", type=int, default=2, help="processes of a cluster of this machine")
    parser.add_argument("--threads", type=int, default=1, help="cores of each")
    parser.add_argument("--batch-size", type=int, default=64, help="images of a task")
    parser.add_argument("--results", help="a folder of plans that all machines share")
    args = parser.parse_args()
    # A session has threads of its own, so that a worker runs one task at a time.
    cluster = args.scheduler or LocalCluster(args.workers, threads_per_worker=1, dashboard_address=None)
    with Client(cluster):
        batches = FeatureBatches(args.weights, column="image", threads=args.threads, results=args.results)
        paths = [str(path) for path in list_images(args.images)]
        starts = range(0, len(paths), args.batch_size)
        tasks = [
            dask.delayed(write)(batches, paths[start : start + args.batch_size], f"{args.out}/{start:09}.parquet")
            for start in starts
        ]
        print(f"{sum(dask.compute(*tasks))} images")


if __name__ == "__main__":
    main()
