"""The wire: one neutral document form between the tables of `api/types` and XML or JSON.

A *document* is what both formats share: a dictionary of element names. A list is an element that
repeats; the keys of `ATTRIBUTES` are XML attributes and ordinary JSON keys; null is left out.

    row ──Shape.document──▶ Document ──xml.written / json.written──▶ bytes
    bytes ──xml.read / json.read──▶ Document ──Shape.form──▶ Form (path ▶ checked value)
"""
