"""What has to be known about torchvision's classification models before one is built.

The tables were made by ``python experiments/backbones.py``: each model was built without its classifier and run on
PyTorch's meta device, where ``torch.utils.flop_counter`` counted its operations.
"""

from __future__ import annotations

from typing import NamedTuple


class Facts(NamedTuple):
    """What is known about a model without its classifier, for images of three channels."""

    size: int  # of the smallest square image that it takes, but at least 28
    features: int  # what its classifier would get
    parameters: int
    flops: int  # for one image of that size
    channel_parameters: int  # of these, the first convolution's for each channel
    channel_flops: int
    fixed: bool = False  # whether it takes no other size

    def takes(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that an image is brought to: a side that is too small is enlarged."""
        return (self.size, self.size) if self.fixed else (max(height, self.size), max(width, self.size))


TORCHVISION = "0.29.2"  # the version that was measured

BACKBONES = {
    "alexnet": Facts(63, 4096, 57003840, 188097920, 7744, 3484800),
    "convnext_base": Facts(32, 1024, 87566464, 626681856, 2048, 262144),
    "convnext_large": Facts(32, 1536, 196230336, 1402444800, 3072, 393216),
    "convnext_small": Facts(32, 768, 49454688, 354405888, 1536, 196608),
    "convnext_tiny": Facts(32, 768, 27820128, 181827072, 1536, 196608),
    "densenet121": Facts(29, 1024, 6953856, 115054976, 3136, 1411200),
    "densenet161": Facts(29, 2208, 26472000, 314459712, 4704, 2116800),
    "densenet169": Facts(29, 1664, 12484480, 136485248, 3136, 1411200),
    "densenet201": Facts(29, 1920, 18092928, 174496128, 3136, 1411200),
    "efficientnet_b0": Facts(28, 1280, 4007548, 16095136, 288, 112896),
    "efficientnet_b1": Facts(28, 1280, 6513184, 24247360, 288, 112896),
    "efficientnet_b2": Facts(28, 1408, 7700994, 28289632, 288, 112896),
    "efficientnet_b3": Facts(28, 1536, 10696232, 40874752, 360, 141120),
    "efficientnet_b4": Facts(28, 1792, 17548616, 64932128, 432, 169344),
    "efficientnet_b5": Facts(28, 2048, 28340784, 102179360, 432, 169344),
    "efficientnet_b6": Facts(28, 2304, 40735704, 146429280, 504, 197568),
    "efficientnet_b7": Facts(28, 2560, 63786960, 226306432, 576, 225792),
    "efficientnet_v2_l": Facts(28, 1280, 117234272, 507077504, 288, 112896),
    "efficientnet_v2_m": Facts(28, 1280, 52858356, 224316416, 216, 84672),
    "efficientnet_v2_s": Facts(28, 1280, 20177488, 113073600, 216, 84672),
    "googlenet": Facts(28, 1024, 5599904, 33755136, 3136, 1229312),
    "inception_v3": Facts(75, 2048, 21785568, 402955456, 288, 788544),
    "maxvit_t": Facts(224, 512, 30407624, 11115069440, 576, 14450688, True),
    "mnasnet0_5": Facts(28, 1280, 937512, 3944624, 144, 56448),
    "mnasnet0_75": Facts(28, 1280, 1889208, 8155872, 216, 84672),
    "mnasnet1_0": Facts(28, 1280, 3102312, 12143616, 288, 112896),
    "mnasnet1_3": Facts(28, 1280, 5001256, 20335376, 360, 141120),
    "mobilenet_v2": Facts(28, 1280, 2223872, 11395296, 288, 112896),
    "mobilenet_v3_large": Facts(28, 1280, 4202032, 13687440, 144, 56448),
    "mobilenet_v3_small": Facts(28, 1024, 1517856, 4220704, 144, 56448),
    "regnet_x_16gf": Facts(28, 2048, 52229536, 621701888, 288, 112896),
    "regnet_x_1_6gf": Facts(28, 912, 8277136, 63173376, 288, 112896),
    "regnet_x_32gf": Facts(28, 2520, 105290560, 1246108416, 288, 112896),
    "regnet_x_3_2gf": Facts(28, 1008, 14287552, 125181696, 288, 112896),
    "regnet_x_400mf": Facts(28, 400, 5094976, 16386304, 288, 112896),
    "regnet_x_800mf": Facts(28, 672, 6586656, 31557376, 288, 112896),
    "regnet_x_8gf": Facts(28, 1920, 37651648, 321157888, 288, 112896),
    "regnet_y_128gf": Facts(28, 7392, 637419894, 5248379904, 288, 112896),
    "regnet_y_16gf": Facts(28, 3024, 80565140, 646876160, 288, 112896),
    "regnet_y_1_6gf": Facts(28, 888, 10313430, 67380096, 288, 112896),
    "regnet_y_32gf": Facts(28, 3712, 141333770, 1306417024, 288, 112896),
    "regnet_y_3_2gf": Facts(28, 1512, 17923338, 132355584, 288, 112896),
    "regnet_y_400mf": Facts(28, 440, 3903144, 17025728, 288, 112896),
    "regnet_y_800mf": Facts(28, 784, 5647512, 34563072, 288, 112896),
    "regnet_y_8gf": Facts(28, 2016, 37364472, 340263168, 288, 112896),
    "resnet101": Facts(28, 2048, 42500160, 309839360, 3136, 1229312),
    "resnet152": Facts(28, 2048, 58143808, 461358592, 3136, 1229312),
    "resnet18": Facts(28, 512, 11176512, 68470272, 3136, 1229312),
    "resnet34": Facts(28, 512, 21284672, 141755904, 3136, 1229312),
    "resnet50": Facts(28, 2048, 23508032, 158320128, 3136, 1229312),
    "resnext101_32x8d": Facts(28, 2048, 86742336, 652342784, 3136, 1229312),
    "resnext101_64x4d": Facts(28, 2048, 81406272, 614243840, 3136, 1229312),
    "resnext50_32x4d": Facts(28, 2048, 22979904, 163426816, 3136, 1229312),
    "shufflenet_v2_x0_5": Facts(28, 1024, 341792, 1515264, 216, 84672),
    "shufflenet_v2_x1_0": Facts(28, 1024, 1253604, 5753296, 216, 84672),
    "shufflenet_v2_x1_5": Facts(28, 1024, 2478624, 11888896, 216, 84672),
    "shufflenet_v2_x2_0": Facts(28, 2048, 5344996, 23557072, 216, 84672),
    "squeezenet1_0": Facts(28, 512, 735424, 10885184, 4704, 1138368),
    "squeezenet1_1": Facts(28, 512, 722496, 5175680, 576, 194688),
    "swin_b": Facts(28, 1024, 86743224, 3259526144, 2048, 200704),
    "swin_s": Facts(28, 768, 48837258, 1855262976, 1536, 150528),
    "swin_t": Facts(28, 768, 27519354, 1004128512, 1536, 150528),
    "swin_v2_b": Facts(28, 1024, 86905848, 4227497984, 2048, 200704),
    "swin_v2_s": Facts(28, 768, 48968442, 2425583616, 1536, 150528),
    "swin_v2_t": Facts(28, 768, 27582570, 1311516672, 1536, 150528),
    "vgg11": Facts(32, 4096, 128766336, 544604160, 576, 1179648),
    "vgg11_bn": Facts(32, 4096, 128771840, 544604160, 576, 1179648),
    "vgg13": Facts(32, 4096, 128950848, 695599104, 576, 1179648),
    "vgg13_bn": Facts(32, 4096, 128956736, 695599104, 576, 1179648),
    "vgg16": Facts(32, 4096, 134260544, 865468416, 576, 1179648),
    "vgg16_bn": Facts(32, 4096, 134268992, 865468416, 576, 1179648),
    "vgg19": Facts(32, 4096, 139570240, 1035337728, 576, 1179648),
    "vgg19_bn": Facts(32, 4096, 139581248, 1035337728, 576, 1179648),
    "vit_b_16": Facts(224, 768, 85798656, 35126120448, 196608, 77070336, True),
    "vit_b_32": Facts(224, 768, 87455232, 8816836608, 786432, 77070336, True),
    "vit_h_14": Facts(518, 1280, 632189440, 2033430968320, 250880, 686909440, True),
    "vit_l_16": Facts(224, 1024, 303301632, 123107377152, 262144, 102760448, True),
    "vit_l_32": Facts(224, 1024, 305510400, 30753030144, 1048576, 102760448, True),
    "wide_resnet101_2": Facts(28, 2048, 124837696, 906593792, 3136, 1229312),
    "wide_resnet50_2": Facts(28, 2048, 66834240, 443123200, 3136, 1229312),
}

# The member with the fewest operations of each family; a family is a module of torchvision.
FAMILIES = {
    "alexnet": "alexnet",
    "convnext": "convnext_tiny",
    "densenet": "densenet121",
    "efficientnet": "efficientnet_b0",
    "googlenet": "googlenet",
    "inception": "inception_v3",
    "maxvit": "maxvit_t",
    "mnasnet": "mnasnet0_5",
    "mobilenetv2": "mobilenet_v2",
    "mobilenetv3": "mobilenet_v3_small",
    "regnet": "regnet_x_400mf",
    "resnet": "resnet18",
    "shufflenetv2": "shufflenet_v2_x0_5",
    "squeezenet": "squeezenet1_1",
    "swin_transformer": "swin_t",
    "vgg": "vgg11",
    "vision_transformer": "vit_b_32",
}
