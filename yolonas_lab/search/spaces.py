"""Two spaces: one around the lab sizes, whose networks train on a laptop, and one that holds S, M and L.

Notebook 09 searches the first and counts both. Deci's is said to have about 10^14 networks (YOLONAS.md of
super-gradients); which ones is not told, so these options are ours.
"""

from yolonas_lab.search.space import Space, StageOptions

# Around pico and nano, which are in it, and so are their RepVGG twins.
LAB_SPACE = Space(
    name="lab",
    stem_channels=(8, 16),
    backbone=(
        StageOptions((16, 24), blocks=(1, 2), hidden_channels=(8, 16)),
        StageOptions((24, 32, 48), blocks=(1, 2, 3), hidden_channels=(8, 16, 24)),
        StageOptions((48, 64, 96), blocks=(1, 2, 3), hidden_channels=(16, 24, 32)),
        StageOptions((96, 128, 192), blocks=(1, 2), hidden_channels=(24, 32, 48)),
    ),
    neck=(
        StageOptions((24, 32, 48), blocks=(1, 2), hidden_channels=(8, 16, 24)),
        StageOptions((16, 24), blocks=(1, 2), hidden_channels=(8, 16)),
        StageOptions((24, 32, 48), blocks=(1, 2), hidden_channels=(8, 16, 24)),
        StageOptions((48, 64, 96), blocks=(1, 2), hidden_channels=(8, 16, 24)),
    ),
    head_channels=((16, 24), (24, 32), (32, 48, 64)),
    reg_max=8,
    image_size=96,
)

# Around S, M and L, which differ neither in the stem nor in what their stages put out.
FULL_SPACE = Space(
    name="full",
    stem_channels=(48,),
    backbone=(
        StageOptions((96,), blocks=(1, 2, 3), hidden_channels=(32, 64, 96)),
        StageOptions((192,), blocks=(2, 3, 4), hidden_channels=(64, 96, 128)),
        StageOptions((384,), blocks=(3, 4, 5, 6), hidden_channels=(96, 128, 192, 256)),
        StageOptions((768,), blocks=(1, 2, 3), hidden_channels=(192, 256, 384, 512)),
    ),
    neck=(
        StageOptions((192,), blocks=(2, 3, 4), hidden_channels=(64, 128, 192)),
        StageOptions((96,), blocks=(2, 3, 4), hidden_channels=(48, 64, 96, 128)),
        StageOptions((192,), blocks=(2, 3, 4), hidden_channels=(64, 128, 192)),
        StageOptions((384,), blocks=(2, 3, 4), hidden_channels=(64, 128, 192, 256)),
    ),
    head_channels=((64, 96, 128), (128, 192, 256), (256, 384, 512)),
)
