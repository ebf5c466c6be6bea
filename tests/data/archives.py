"""Small archives in memory, for tests."""

import io
import tarfile
import zipfile


def zip_of(members: dict[str, bytes]) -> bytes:
    """The bytes of a .zip file with these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def tar_of(members: dict[str, bytes], gzip: bool = False) -> bytes:
    """The bytes of a .tar (or .tar.gz) file with these members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if gzip else "w") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
