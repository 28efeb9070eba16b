import pytest

from subscriptions.visible import visible, visible_page


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\r\n", "plain\ttext\r\n"),
        ("Zoë 日本語 שלום", "Zoë 日本語 שלום"),
        ("👩\u200d💻", "👩\u200d💻"),
        ("gpj\u202eexe", r"gpj\u202eexe"),
        ("\u2066a\u2069", r"\u2066a\u2069"),
        ("a\u200bb\xadc\ufeff", r"a\u200bb\u00adc\ufeff"),
        ("\x00\x1b[31m\x85", r"\u0000\u001b[31m\u0085"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\udb40\udc41"),
        ("a\u3164b\uffa0\u115f\u034f", r"a\u3164b\uffa0\u115f\u034f"),
        ("a\U000e0101", r"a\udb40\udd01"),
        ("❤\ufe0f", "❤\ufe0f"),
        ("<b>", "<b>"),
    ],
)
def test_it_spells_out_what_hides_or_reorders_text(text, shown):
    assert visible(text) == shown
    assert visible(shown) == shown


def test_it_makes_the_text_of_a_page_visible_and_leaves_what_is_in_fields():
    page = '<p title="a\u202e">b\u202e</p><input value="c\u202e"><textarea rows="2">d\u202e\n</textarea>e\u202e'
    assert visible_page(page) == (
        r'<p title="a\u202e">b\u202e</p>'
        '<input value="c\u202e"><textarea rows="2">d\u202e\n</textarea>'
        r"e\u202e"
    )
