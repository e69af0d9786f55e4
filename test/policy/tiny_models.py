"""Real Hugging Face directories with tiny random models, made by the tests; nothing is downloaded."""

import json

import torch

from dit_policy_ros.policy.encoders.qwen import PROCESSORS

WORDS = ("<pad>", "</s>", "<unk>", "<image>", "<cognition>", "USER", "pick", "the", "red", "cup")
SIZES = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 3, "num_attention_heads": 2}


def tokenizer():
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>", "<cognition>"],
    )


def preprocessor(directory, side=28, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)):
    settings = {"size": {"height": side, "width": side}, "image_mean": mean, "image_std": std, "resample": 3}
    (directory / "preprocessor_config.json").write_text(json.dumps(settings))


def save_siglip(directory):
    """16 wide, 4 patches."""
    import transformers

    torch.manual_seed(0)
    config = transformers.SiglipVisionConfig(**SIZES, image_size=28, patch_size=14)
    transformers.SiglipVisionModel(config).save_pretrained(directory)
    preprocessor(directory)
    return directory


def save_dino(directory):
    """12 wide, 4 patches, 4 registers."""
    import transformers

    sizes = {"hidden_size": 12, "mlp_ratio": 2, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = transformers.Dinov2WithRegistersConfig(**sizes, image_size=28, patch_size=14, num_register_tokens=4)
    torch.manual_seed(1)
    transformers.Dinov2WithRegistersModel(config).save_pretrained(directory)
    preprocessor(directory, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    return directory


def save_t5(directory):
    """16 wide."""
    import transformers

    config = transformers.T5Config(vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=20, num_layers=2, num_heads=2)
    torch.manual_seed(2)
    transformers.T5EncoderModel(config).save_pretrained(directory)
    tokenizer().save_pretrained(directory)
    return directory


def save_llava(directory):
    """16 wide."""
    import transformers

    sizes = {**SIZES, "num_attention_heads": 4}
    text = transformers.LlamaConfig(**sizes, num_key_value_heads=2, vocab_size=len(WORDS))
    vision = transformers.CLIPVisionConfig(**sizes, image_size=28, patch_size=14, projection_dim=16)
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=3)
    torch.manual_seed(3)
    transformers.LlavaForConditionalGeneration(config).save_pretrained(directory)
    side = {"height": 28, "width": 28}
    processor = transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessor(size=side, crop_size=side),
        tokenizer=tokenizer(),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template="{% for m in messages %}USER {% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}",
    )
    processor.save_pretrained(directory)
    return directory


def save_clip(directory):
    """Both halves 16 wide."""
    import transformers

    vision = transformers.CLIPVisionConfig(**SIZES, image_size=28, patch_size=14, projection_dim=16)
    text = transformers.CLIPTextConfig(
        **SIZES, vocab_size=len(WORDS), max_position_embeddings=12, eos_token_id=1, pad_token_id=0, projection_dim=16
    )
    torch.manual_seed(4)
    config = transformers.CLIPConfig(vision_config=vision.to_dict(), text_config=text.to_dict(), projection_dim=16)
    transformers.CLIPModel(config).save_pretrained(directory)
    tokenizer().save_pretrained(directory)
    preprocessor(directory)
    return directory


def save_vae(directory):
    """Stable Diffusion's autoencoder in small: 4 latents for every 8 x 8 pixels."""
    import diffusers

    torch.manual_seed(5)
    diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
    ).save_pretrained(directory)
    return directory


QWEN_WORDS = (
    "<pad>",
    "</s>",
    "<unk>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|quad_start|>",
    "pick",
    "the",
    "red",
    "cup",
)


QWEN_TEMPLATE = (
    "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %} {{ c['text'] }} {% endif %}{% endfor %}{% endfor %}"
)


def save_qwen(directory):
    """Qwen2.5-VL, 16 wide: three layers with two heads of keys and values, 4 wide each."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    text = {**SIZES, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": len(QWEN_WORDS)}
    text |= {"bos_token_id": 1, "eos_token_id": 1, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 0]}}
    vision = {"depth": 2, "hidden_size": 16, "intermediate_size": 20, "num_heads": 2, "out_hidden_size": 16}
    vision |= {"patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1]}
    marks = {"image_token_id": 3, "video_token_id": 4, "vision_start_token_id": 5, "vision_end_token_id": 6}
    torch.manual_seed(6)
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **marks)
    transformers.Qwen2_5_VLForConditionalGeneration(config).save_pretrained(directory)
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(QWEN_WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    marks = [word for word in QWEN_WORDS if word.startswith("<|")]
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "additional_special_tokens": marks}
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, **names).save_pretrained(directory)
    pixels = {"min_pixels": 28 * 28, "max_pixels": 16 * 28 * 28}
    processor = next(name for name in PROCESSORS if hasattr(transformers, name))
    getattr(transformers, processor)(**pixels).save_pretrained(directory)
    (directory / "chat_template.jinja").write_text(QWEN_TEMPLATE)
    return directory
