"""Translate a folder of videos on a ComfyUI server, near or far: see `queue_folder.py --help`.

    translate.py   translate one video on one server: a plain function
    folder_run.py  all videos of a folder: skip, retry, report
    workflow.py    the graph: where the video goes in, where the result comes out
    ledger.py      the record of the finished videos
    client.py      queue prompts, follow them, read their results
    connection.py  HTTP and websockets, on one aiohttp session
    answers.py     the server's answers, checked and parsed; refusal.py: that of a graph
    errors.py      the exceptions; backoff.py: the waits between tries
    transfer.py    send videos to the server, fetch the results; parts.py: unfinished files
    command.py     the command line, with bars.py and report.py

Imports neither torch nor ComfyUI's modules, only aiohttp, filelock, tqdm and PyAV, which ComfyUI
installs.
"""
