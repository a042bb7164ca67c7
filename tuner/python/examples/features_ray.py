"""Features of a folder or bucket of images into Parquet, on a Ray cluster.

    pip install "ray[data]" inception-tuner
    python features_ray.py s3://bucket/photographs features/ --weights /shared/w.safetensors \\
        --workers 16 --threads 4 --results /shared/plans --budget 60

A worker is an actor with a session of its own on `--threads` cores. A worker that dies is started again,
and its batch is run again. Each machine takes its own plan from `--results`, or tunes one first.

Parquet has `path`, `features` (2048 float32) and `error`: why an image could not be read.
"""

import argparse

import pyarrow as pa
import ray

from inception_tuner.batches import FeatureBatches

SUFFIXES = ["bmp", "gif", "jfif", "jpe", "jpeg", "jpg", "png", "tif", "tiff", "webp"]
# Reading and writing wait for disks or the network: they take no core from the workers.
WAITS = {"num_cpus": 0}


class Features(FeatureBatches):
    """The same as Arrow tables, so that features are plain lists in Parquet."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        return self.table({name: batch.column(name).to_pylist() for name in batch.column_names})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", help="a folder, or an address that Ray reads, such as s3://bucket/folder")
    parser.add_argument("out", help="the folder of Parquet files")
    parser.add_argument("--weights", help="a path that every machine has; synthetic weights without it")
    parser.add_argument("--workers", type=int, default=2, help="sessions in the cluster")
    parser.add_argument("--threads", type=int, default=1, help="cores of each")
    parser.add_argument("--batch-size", type=int, default=64, help="images that a worker takes at once")
    parser.add_argument("--precision", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--preprocess", help="a preset, such as fid")
    parser.add_argument("--results", help="a folder of plans that all machines share")
    parser.add_argument("--budget", type=float, help="seconds for tuning where a machine has no plan")
    args = parser.parse_args()
    session = {"threads": args.threads, "precision": args.precision, "preprocess": args.preprocess}
    session.update(results=args.results, budget=args.budget)

    images = ray.data.read_binary_files(
        args.images, include_paths=True, file_extensions=SUFFIXES, ray_remote_args=WAITS
    )
    features = images.map_batches(
        Features,
        fn_constructor_kwargs={"weights": args.weights, **session},
        batch_size=args.batch_size,
        batch_format="pyarrow",
        num_cpus=args.threads,
        concurrency=args.workers,
    )
    features.write_parquet(args.out, ray_remote_args=WAITS)


if __name__ == "__main__":
    main()
