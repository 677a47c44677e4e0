"""The key that signs revisions: made once for its owner only, its public half printed."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from control_plane.settings import Settings
from tidegate.signing_key import make_or_show


def test_the_key_is_made_once_and_the_control_plane_takes_it(tmp_path, capsys):
    path = tmp_path / "key"
    assert make_or_show(path) == 0
    public = capsys.readouterr().out.strip()
    assert path.stat().st_mode & 0o777 == 0o600
    settings = Settings(database_url="postgresql+asyncpg://nowhere/x", signing_key_file=path)
    signature = settings.signing_key().sign(b"a revision")
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(signature, b"a revision")

    assert make_or_show(path) == 0
    assert capsys.readouterr().out.strip() == public


def test_what_is_no_key_is_refused_and_not_shown(tmp_path, capsys):
    path = tmp_path / "key"
    path.write_text("hush hush")
    assert make_or_show(path) == 1
    said = capsys.readouterr()
    assert "64 hex digits" in said.err
    assert "hush" not in said.out + said.err.replace(str(path), "")
    assert make_or_show(tmp_path / "nowhere" / "key") == 1
