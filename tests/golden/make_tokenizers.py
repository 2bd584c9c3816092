"""Makes the golden tokenizers of kinds that published test sets lack. Usage: python make_tokenizers.py TEXT OUT
TEXT: any English plain text to train on. Needs PyPI tokenizers and sentencepiece, which also say what is right."""

import io
import json
import pathlib
import sys

import sentencepiece
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors,
                        trainers)

CASES = [
    "Hello, world!", "", " ", "  two  spaces ", " leading", "trailing ", "a\nb\n\n c\t\td\r\n", "It's don't we'll I'd THEY'RE",
    "1234567890 3.14 ½ Ⅷ ٣", "naïve café résumé", "e\u0301 combining", "ﬁ ligature ① ²", "日本語のテキスト", "한국어 문장",
    "Привет, мир", "👩‍👩‍👧 🏳️‍🌈 emoji", "x" * 70, "<s> text </s> <unk>", "<extra>word<extra>", "say<extra> it", "[MASK] is [CLS]",
    "one [MASK] two", "wordMASKED", "UPPER lower MiXeD İstanbul ΣΑΣ", "tabs\u00a0nbsp\u3000wide\u2028line", "a▁b ▁ c",
    "zero\u200bwidth\u200djoin", "().,;:!?-- ---", "http://example.org/a?b=c&d=e_f", "\u0000null\u0007bell", "ends with newline\n",
    "the wages of labour and the profits of stock", "\ufffd replaced", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𠀀", "don 't do not n't .", "  ",
]


def cases_of(encode, decode):
    rows = []
    for text in CASES:
        ids = encode(text, True)
        rows.append({"text": text, "ids": ids, "ids_no_special": encode(text, False), "decoded": decode(ids, True),
                     "decoded_with_special": decode(ids, False)})
    return rows


def save(out, name, tokenizer, config, **extra_files):
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1), "utf-8")
    rows = cases_of(lambda text, special: tokenizer.encode(text, add_special_tokens=special).ids,
                    lambda ids, skip: tokenizer.decode(ids, skip_special_tokens=skip))
    (folder / "cases.json").write_text(json.dumps(rows, ensure_ascii=False, indent=0), "utf-8")


def gpt2(lines):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=["<|endoftext|>"],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.add_tokens([AddedToken("<extra>", lstrip=True, rstrip=True), AddedToken("MASKED", single_word=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("<|endoftext|>", 0), ("<|endoftext|>", 0))
    return tokenizer


def gemma(lines):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if not token["content"].startswith("<0x")]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.post_processor = processors.TemplateProcessing("<bos> $A", None, [("<bos>", 2)])
    return tokenizer


def llama2(lines):
    tokenizer = gemma(lines)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = None
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    return tokenizer


def metaspace_first(lines):
    tokenizer = gemma(lines)
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
    return tokenizer


def bert_cased(lines):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=60))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
                                        show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def unigram(lines):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.StripAccents(), normalizers.Lowercase(),
                                                 normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>",
                                      show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", None, [("<s>", 1), ("</s>", 2)])
    return tokenizer


def splits(lines):
    """Every way to split, one after the other, and a word-end suffix."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>", continuing_subword_prefix="~"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\s*[\r\n]+"), "merged_with_next"), pre_tokenizers.Split(Regex(r"[^\s\w]+"), "contiguous"),
        pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.Split("e", "merged_with_previous"),
        pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation("isolated")])
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "<s>"], end_of_word_suffix="</w>",
                                  continuing_subword_prefix="~", show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def sentencepiece_model(lines, out):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=520, model_type="bpe", byte_fallback=True,
        character_coverage=0.99, normalization_rule_name="identity", remove_extra_whitespaces=False,
        split_digits=True, minloglevel=2)
    folder = out / "sentencepiece-bpe"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    (folder / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True, "tokenizer_class": "LlamaTokenizer"}))
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    chain = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                               decoders.Strip(" ", 1, 0)])

    def encode(text, special):
        ids = [processor.bos_id()] if special else []
        while text:  # control pieces spelled out are tokens, each text between them is encoded by itself
            at, name = min(((text.find(name), name) for name in ("<s>", "</s>", "<unk>") if name in text),
                           default=(len(text), ""))
            ids += processor.encode(text[:at]) if at else []
            ids += [processor.piece_to_id(name)] if name else []
            text = text[at + len(name):]
        return ids

    def decode(ids, skip):
        return chain.decode([processor.id_to_piece(i) for i in ids
                             if not (skip and (processor.is_control(i) or processor.is_unknown(i)))])

    (folder / "cases.json").write_text(json.dumps(cases_of(encode, decode), ensure_ascii=False, indent=0), "utf-8")


def main():
    text, out = pathlib.Path(sys.argv[1]).read_text("utf-8", "replace"), pathlib.Path(sys.argv[2])
    lines = [line for line in text.splitlines()[:4000] if line.strip()]
    kinds = {"gpt2-like": gpt2, "gemma-like": gemma, "llama2-like": llama2, "metaspace-first": metaspace_first,
             "bert-cased": bert_cased, "unigram": unigram, "splits": splits}
    for name, make in kinds.items():
        save(out, name, make(lines), {"tokenizer_class": "PreTrainedTokenizerFast"})
    sentencepiece_model(lines, out)


if __name__ == "__main__":
    main()
