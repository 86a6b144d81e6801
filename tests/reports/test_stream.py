"""Stream: text is printed in complete characters, and counted in tokens."""

from minigpt2.reports.stream import print_stream, rate


def test_text_comes_in_whole_characters(tokenizer):
    text = "naïve 🦜 日本"
    ids = tokenizer.encode(text)
    parts = list(tokenizer.decode_stream(ids))
    assert "".join(parts) == text and not any("\ufffd" in part for part in parts)
    broken = list(tokenizer.decode_stream(tokenizer.encode("🦜")[:-1]))
    assert "".join(broken) == tokenizer.decode(tokenizer.encode("🦜")[:-1])


def test_tokens_are_printed_as_they_come_and_counted(tokenizer, capsys):
    printed = []

    def ids():
        for token in tokenizer.encode("naïve 🦜"):
            printed.append(capsys.readouterr().out)
            yield token

    count = print_stream(tokenizer, ids())
    assert count == len(printed) == len(tokenizer.encode("naïve 🦜"))
    assert "".join(printed) + capsys.readouterr().out == "naïve 🦜\n"
    assert printed[1] == tokenizer.decode(tokenizer.encode("naïve 🦜")[:1])


def test_the_rate_counts_in_words():
    assert rate(1, 0.5) == "1 token, 2.0 tokens/s"
    assert rate(1500, 1.0) == "1,500 tokens, 1,500.0 tokens/s"
