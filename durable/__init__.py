"""What makes a run survive the night, and what tells of it afterwards: a folder on disk for each run.

====================  ==============================================================================================
``run_folder.py``     the folder: its manifest, its journal, its objects; the only place that writes them
``plan_text.py``      a plan as data that can be kept, compared and told in sentences; pure
``secrets.py``        what never goes to disk; pure
``kept_run.py``       what runs and batches write in the same way
``checkpoint.py``     a run that writes as it goes, and goes on where a killed one ended
``environment.py``    what a run ran on: versions, packs, model files
``server_memory.py``  memory, looked at after every step; ceilings
``retry.py``          how often a step is tried, and what is done before; pure
``stop_signal.py``    Ctrl-C: once, twice
``thumbnails.py``     small pictures for the report, a bounded number of them
``batch_folder.py``   the folder of a batch: items by their names, and the files that they became
``replay_plan.py``    what of a record is run again, and what is missing for it; pure
``replay.py``         running it
``compare.py``        what differs between two records; pure
``report.py``         a record as one HTML page; pure
====================  ==============================================================================================

Nothing here knows how a step is run; ``workflow_tools`` does, and asks a ``Checkpoint`` what is done already, as does
``batch`` of a ``BatchFolder``. The format of the folder is documented for its readers in docs/reference/run-record.md.
"""
