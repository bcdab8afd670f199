/**
 * Types that several modules share. This file has no code.
 *
 * @typedef {{box?: number[], points?: number[][], labels?: number[], label?: string}} Prompt A prompt as in the API.
 *
 * @typedef {Record<string, unknown>} Stroke A stroke of the brush as in the API.
 *
 * @typedef {object} Subject What `X-Maskdrop-Subject` contains.
 * @property {number[] | null} box x0, y0, x1, y1 in pixels of the upright source.
 * @property {number} coverage
 * @property {number} score
 * @property {string} kind
 * @property {string} engine
 * @property {boolean} needs_review
 *
 * @typedef {object} Facts The response headers that describe a result.
 * @property {string} engine
 * @property {number} width In pixels.
 * @property {number} height In pixels.
 * @property {Subject | null} subject
 * @property {string[]} warnings
 * @property {Record<string, number>} timings Milliseconds by processing step.
 *
 * @typedef {{blob: Blob, facts: Facts}} Cutout
 *
 * @typedef {{code: string, message: string, retryable: boolean}} ErrorInfo An error as in the API.
 *
 * @typedef {"accepted" | "corrected"} Verdict
 *
 * @typedef {object} Job A job as in the API.
 * @property {string} id
 * @property {"queued" | "submitted" | "done" | "failed"} state
 * @property {string} preset
 * @property {string} task
 * @property {string} engine
 * @property {Prompt | Prompt[]} prompt
 * @property {Record<string, unknown>} output
 * @property {Stroke[]} [strokes]
 * @property {{bucket: string, key: string, bytes: number | null}} source
 * @property {JobResult | null} result
 * @property {Subject | null} subject
 * @property {ErrorInfo | null} error
 * @property {string[]} warnings
 * @property {number} attempts
 * @property {Record<string, number>} timings
 * @property {number | null} cost_usd
 * @property {string} created_at
 * @property {string} changed_at
 * @property {string | null} finished_at
 * @property {{verdict: Verdict, reviewer: string, reviewed_at: string, training: boolean} | null} review
 *
 * @typedef {{key: string, width: number, height: number, bytes: number, format: string, url?: string}} JobResult
 *
 * @typedef {object} Engine An engine as in the API.
 * @property {string} name
 * @property {string[]} tasks
 * @property {string[]} default_for
 * @property {string} subject
 * @property {string[]} prompts
 * @property {boolean} interactive
 * @property {boolean | null} available
 * @property {boolean} paid
 * @property {boolean} non_commercial
 *
 * @typedef {{name: string, task?: string, engine?: string, output?: Record<string, unknown>, error?: ErrorInfo}} Preset
 *
 * @typedef {{label: string, score: number, box: number[]}} Detection Box in pixels of the upright image.
 * @typedef {{width: number, height: number, engine: string, labels: string[] | null, detections: Detection[]}} Detections
 *
 * @typedef {object} Usage
 * @property {string} owner
 * @property {string} month
 * @property {number} pictures
 * @property {number} refused
 * @property {number} generated
 * @property {number} generated_usd
 *
 * @typedef {"none" | "colour" | "gradient" | "studio" | "blur" | "image" | "text"} BackgroundKind
 *
 * @typedef {object} Design The choices of the panel, for all images of the queue.
 * @property {string} preset "" for none.
 * @property {string} engine "" for the default.
 * @property {BackgroundKind} background
 * @property {string} colour `#rrggbb`.
 * @property {string} from First colour of the gradient.
 * @property {string} to Last colour of the gradient.
 * @property {string} angle `180deg`, `90deg`, `135deg` or `radial`.
 * @property {string} studio
 * @property {number} blur Percent of the longer side.
 * @property {Blob | null} image
 * @property {string} text What the generated background shows.
 * @property {"none" | "drop" | "contact"} shadow
 * @property {number} opacity Of the shadow, in percent.
 * @property {string} canvas "" for that of the image, a marketplace, `W:H`, or `custom`.
 * @property {number} width Of the canvas `custom`, in pixels.
 * @property {number} height Of the canvas `custom`, in pixels.
 * @property {number} padding Percent of the canvas; 0 for none.
 * @property {number} outline Percent of the subject; 0 for none.
 * @property {string} outlineColour
 * @property {"png" | "webp" | "jpg" | "avif"} format
 * @property {string} size
 * @property {Record<string, unknown>} rest Fields of a preset that the panel does not have.
 *
 * @typedef {"waiting" | "running" | "done" | "failed" | "cancelled"} ItemState
 *
 * @typedef {object} Item One image of the queue.
 * @property {number} id
 * @property {string} name
 * @property {Blob | null} file null: not fetched from `url`.
 * @property {string} url "" for a file.
 * @property {ItemState} state
 * @property {Blob | null} preview Cut-out by the network in the browser, until the server's result is there.
 * @property {Blob | null} result Cut-out by the server: PNG with the size of the source.
 * @property {Facts | null} facts
 * @property {ErrorInfo | null} error
 * @property {number} attempts
 * @property {Prompt[]} prompts
 * @property {Stroke[]} strokes
 * @property {boolean} accepted Whether a person accepted the result, or sent its correction.
 * @property {boolean} corrected Whether the editor changed a result that needed a review, or the result of a job.
 * @property {Job | null} job The job whose source and result it is.
 * @property {number} revision Counts the changes of `result`.
 */
export {};
