{{- define "evaluation.labels" -}}
app.kubernetes.io/name: {{ .name | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/part-of: tidegate
app.kubernetes.io/managed-by: {{ .root.Release.Service | quote }}
{{- end -}}

{{- /* DER behind a PEM, as hex. */ -}}
{{- define "evaluation.hex" -}}
{{- regexReplaceAll "-----[A-Z ]+-----|\\s" . "" | b64dec | printf "%x" -}}
{{- end -}}
