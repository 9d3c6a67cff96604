"""The page as a Hugging Face Space, which itself says where to listen."""

from jaxdiff.commands.app import LARGEST, WAITING, build

page = build()

if __name__ == "__main__":
    page.queue(max_size=WAITING).launch(max_file_size=LARGEST)
