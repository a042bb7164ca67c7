"""The FID of two folders or buckets of images, on a Ray cluster.

    python fid_ray.py s3://bucket/real s3://bucket/fake --weights /shared/pt_inception-2015-12-05-6726825d.pth \\
        --workers 16 --threads 4

Each worker sums statistics of its images, and the driver unites them: counts, means and co-moments, without
loss but for rounding. An image that can't be read ends the run.
"""

import argparse
import pickle

import ray

from inception_tuner import FidStatistics, Session

SUFFIXES = ["bmp", "gif", "jfif", "jpe", "jpeg", "jpg", "png", "tif", "tiff", "webp"]
# Reading and writing wait for disks or the network: they take no core from the workers.
WAITS = {"num_cpus": 0}


class Statistics:
    """The statistics of each batch, by one session a worker."""

    def __init__(self, dims, **session):
        self.session = Session.open(model="inception_v3_fid", features_only=True, dims=dims, **session)

    def __call__(self, batch):
        features = self.session(list(batch["bytes"])).features
        statistics = FidStatistics(features.shape[1])
        statistics.update(features)
        return {"statistics": [pickle.dumps(statistics)]}


def statistics_of(images, args):
    """The statistics of a folder."""
    session = {"threads": args.threads, "weights": args.weights, "preprocess": args.preprocess}
    files = ray.data.read_binary_files(images, file_extensions=SUFFIXES, ray_remote_args=WAITS)
    parts = files.map_batches(
        Statistics,
        fn_constructor_kwargs={"dims": args.dims, "results": args.results, "budget": args.budget, **session},
        batch_size=args.batch_size,
        num_cpus=args.threads,
        concurrency=args.workers,
    )
    all_of_them = FidStatistics(args.dims)
    for row in parts.iter_rows():
        all_of_them.merge(pickle.loads(row["statistics"]))
    return all_of_them


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("real", help="a folder, or an address that Ray reads")
    parser.add_argument("fake", help="the same of the other images")
    parser.add_argument("--weights", help="a path that every machine has; synthetic weights without it")
    parser.add_argument("--dims", type=int, default=2048, help="features of an image")
    parser.add_argument("--workers", type=int, default=2, help="sessions in the cluster")
    parser.add_argument("--threads", type=int, default=1, help="cores of each")
    parser.add_argument("--batch-size", type=int, default=512, help="images of which statistics are sent at once")
    parser.add_argument("--preprocess", default="fid", help="fid, fid-clean or fid-torch-fidelity")
    parser.add_argument("--results", help="a folder of plans that all machines share")
    parser.add_argument("--budget", type=float, help="seconds for tuning where a machine has no plan")
    args = parser.parse_args()
    real, fake = (statistics_of(images, args) for images in (args.real, args.fake))
    print(f"FID {real.distance(fake):.6f} of {real.count} and {fake.count} images")


if __name__ == "__main__":
    main()
