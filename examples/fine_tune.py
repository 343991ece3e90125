"""Fine-tune a network that was carried away in one file on images of your own, and export it.

    python fine_tune.py net-01.safetensors IMAGES OUT

The file is all that is needed of the search: `cars-hw train` writes trained/NAME.safetensors, and `cars-hw export
--hub` a folder that is taken as well. IMAGES has a folder of images for each class. OUT gets tuned.safetensors,
tuned.onnx and tuned.tflite, each with its card.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import cars_hw


def main():
    """Load, fine-tune, save and export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--head-epochs", type=int, default=3, help="epochs of the classifier alone, before")
    parser.add_argument("--batch-size", type=int, default=16)
    given = parser.parse_args()

    model = cars_hw.load_model(given.model)
    steps = model.card.preprocessing
    print(f"{given.model}: {model.spec.describe()}, trained for {', '.join(model.card.class_names)}")

    # A sixth of each class is the test part. The network keeps the normalisation that it was trained with.
    images = cars_hw.load_data(str(given.images.absolute()), resolution=steps.resolution)
    if images.channels != steps.channels:
        parser.error(f"the network takes images of {steps.channels} channels, not {images.channels}")
    images = replace(images, mean=steps.mean, std=steps.std)

    # A new classifier is trained first, by itself, so that its first errors do not spoil the features.
    model.reset_classifier(images.class_names)
    recipe = cars_hw.Recipe(epochs=given.head_epochs, batch_size=given.batch_size, learning_rate=0.05)
    model.requires_grad_(False)
    model.classifier.requires_grad_(True)
    cars_hw.train_network(model, images, recipe, seed=0)
    model.requires_grad_(True)
    tuned = cars_hw.train_network(model, images, replace(recipe, epochs=given.epochs, learning_rate=0.01), seed=0)
    print(f"accuracy: {tuned.accuracy:.1%} of {len(images.test)} test images")

    given.out.mkdir(parents=True, exist_ok=True)
    model.card = replace(model.card, accuracy=tuned.accuracy, test_images=len(images.test))
    model.save(given.out / "tuned.safetensors")
    for suffix in ("onnx", "tflite"):
        card = model.export(given.out / f"tuned.{suffix}")
        print(f"{given.out / f'tuned.{suffix}'}: agrees with PyTorch to {card.parity:.1e}")


if __name__ == "__main__":
    main()
