"""Classifies photographs: python classify.py w.safetensors cat.jpg dog.png"""

import sys

import inception_tuner

weights, *photographs = sys.argv[1:]
session = inception_tuner.Session.open(weights)
for photograph, top in zip(photographs, session(photographs).top(5)):
    for prediction in top:
        print(f"{photograph}: {prediction.probability:.4f} {prediction.label or prediction.index}")
