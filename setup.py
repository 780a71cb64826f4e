"""What pyproject.toml cannot say: packages are found, configs/ and C++ sources go inside lit_rnn."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["lit_rnn*", "datamodules*"]), "lit_rnn.configs"],
    package_dir={"lit_rnn.configs": "configs"},
    package_data={"lit_rnn": ["published.yaml"], "lit_rnn.configs": ["**/*.yaml"], "lit_rnn.scan": ["*.cpp", "*.h"]},
)
