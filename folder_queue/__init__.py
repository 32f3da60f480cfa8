"""Translate a folder of videos on a ComfyUI server, near or far: see `queue_folder.py --help`.

    translate.py   one video on one server, its result: a plain function
    folder_run.py  all videos of a folder: skip, retry, report
    workflow.py    the graph: where the video goes in, where the result comes out
    ledger.py      what is done already
    client.py      prompts: queue them, follow them, learn what they made
    connection.py  HTTP and websockets, on one aiohttp session
    answers.py     what the server says, as values; errors.py: what can go wrong
    transfer.py    videos to the server, results back
    command.py     the command line, with bars.py and report.py

Knows neither torch nor ComfyUI's modules: it needs aiohttp, tqdm and PyAV, which ComfyUI has.
"""
